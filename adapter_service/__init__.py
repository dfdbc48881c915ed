"""External systems: protocol, credentials, mapping, error classification and lookup. It keeps no request state."""
