"""vic-machine: creates and looks after virtual container hosts."""
