package mcpserver

// Memories keeps what agents shall know later.
type Memories interface{}

func (s *Server) addMemoryTools() {}
