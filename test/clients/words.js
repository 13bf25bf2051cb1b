// An embedding that needs no model: counts of the letter triples of words, hashed. Texts that share words, or parts of
// words, are near one another under it.

export const wordsSize = 128;

/** Returns the vector of a text, of wordsSize whole numbers. */
export function embed(text) {
    const vector = Array(wordsSize).fill(0);
    for (const word of text.toLowerCase().match(/\p{Letter}+/gu) ?? []) {
        const marked = `^${word}$`;
        for (let i = 0; i + 3 <= marked.length; i++) {
            let hash = 2166136261;
            for (const letter of marked.slice(i, i + 3)) {
                hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
            }
            vector[(hash >>> 8) % wordsSize] += 1;
        }
    }
    return vector;
}
