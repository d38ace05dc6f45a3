"""What every room may use: options and units, files and threads, memory, messages. It knows nothing of plants."""
