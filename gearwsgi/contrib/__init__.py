"""Integrations with frameworks. Each module imports its framework; nothing in the core imports these."""
