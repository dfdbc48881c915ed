"""The `hub` command and the local supervisor. Speaks to a running hub through its public contracts only."""
