"""`python -m benchmarks`: measure gearwsgi and its peers in one run and print both tables."""

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import venv


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds of each measure (default: 5, with --quick 3)")
    parser.add_argument("--only", metavar="MEASURE", action="append", help="only this one (may be repeated)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every sample to FILE")
    parser.add_argument("--quick", action="store_true", help="a quarter of the work a round")
    parser.add_argument("--plots", action="store_true", help="draw how cost grows (docs/images/*.svg)")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    venv.enter("benchmarks")
    # Only from here on the peers can be imported.
    from benchmarks import measures, plots, report
    from benchmarks.harness import Stage, Trouble

    unknown = [name for name in options.only or () if name not in measures.MEASURES]
    if unknown:
        print(f"No measure {', '.join(unknown)}; there are {', '.join(measures.MEASURES)}.", file=sys.stderr)
        return 2
    if shutil.which("gearmand") is None:
        print("gearmand is not installed (Debian: apt-get install gearman-job-server).", file=sys.stderr)
        return 2
    names = options.only or list(measures.MEASURES)
    rounds = options.rounds or (3 if options.quick else 5)
    try:
        with Stage() as stage:
            bench = measures.Bench(stage, 0.25 if options.quick else 1.0)
            for key, why in bench.absent.items():
                print(f"Left out: {report.LABELS[key]}: {why}", file=sys.stderr)
            if options.plots:
                plots.write(bench, quick=options.quick)
                return 0
            results = measures.run(bench, names, rounds)
    except KeyboardInterrupt:
        print("Interrupted; everything is stopped.", file=sys.stderr)
        return 130
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 1
    print(report.markdown(results, names, rounds))
    if options.json:
        samples = [
            {"measure": measure, "who": key, "round": turn, **asdict(sample)}
            for (measure, key), turns in results.samples.items()
            for turn, sample in turns.items()
        ]
        content = {"machine": report.machine(), "noise": results.noise, "samples": samples}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
