"""The commands, a module each group."""
