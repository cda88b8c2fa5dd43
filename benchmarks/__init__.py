"""What gearwsgi costs, beside what users would pick instead: `python -m benchmarks` measures and compares."""
