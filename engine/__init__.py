"""The Docker API personality. Knows Docker, knows no hypervisor."""
