"""PID 1 of every container VM."""
