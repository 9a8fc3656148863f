"""Our own tasks."""
