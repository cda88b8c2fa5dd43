"""Where a framework needs a hand. Each module imports its framework; nothing in the core imports these."""
