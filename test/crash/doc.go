// Package crash kills real vectord processes in the middle of their work and checks what the next process finds: every
// acknowledged write, no deleted point, nothing twice, nothing half-written.
//
// Its tests are all there is to it. They build the binary from this tree and speak plain HTTP to it, sharing no code with
// the server or its client, so that no mistake can hide on both sides. Three variables of the environment set the size of
// the kill test: CRASH_ROUNDS (30), CRASH_POINTS, the points that lie there untouched (2000), and CRASH_SEED, which
// repeats the choices of a failed run, though not the moments at which the machine ran the threads.
//
// The chaos test does the same to tasks, and kills agents besides. It speaks through package client, and counts what the
// agents were told against what the server has at the end. Its size is CHAOS_TASKS (2000), CHAOS_AGENTS (10) and CHAOS_KILLS, of
// the server (4).
//
// The tests of clusters run three nodes and write to all of them while the leader is killed or stopped, all nodes are killed, a node loses
// its disk, all are restarted one after the other, a disk is full, and links are cut. What clients were told is compared with
// what every node has at the end: a set of points whose versions tell of a write that took effect twice, tasks, and
// registers whose history porcupine checks for linearizability. CLUSTER_ROUNDS is how many faults each test makes, and
// CLUSTER_FILL how many MiB a node that has lost its disk has to get. Disks and links need root on Linux; without, these two
// tests are skipped. A failure leaves the nodes' logs in a folder that it names.
package crash
