"""`python -m suites.run OUTCOMES LABEL…`: run tests of Django's with our backend in the places of Django's own.

What each test came to is written to OUTCOMES as JSON: null where it passed, else why not.
"""

import importlib
import json
import sys
import unittest

from django.test.runner import DiscoverRunner


class Result(unittest.TextTestResult):
    """Keeps what each test came to."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.outcomes = {}

    def startTest(self, test):
        super().startTest(test)
        self.outcomes[test.id()] = None

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._note(test, err)

    def addError(self, test, err):
        super().addError(test, err)
        self._note(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, err)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.outcomes[test.id()] = f"skipped: {reason}"

    def _note(self, test, err):
        self.outcomes[test.id()] = f"{err[0].__name__}: {err[1]}"


class Runner(DiscoverRunner):
    """Django's, which hands out the result."""

    def get_resultclass(self):
        return Result

    def run_suite(self, suite, **kwargs):
        self.result = super().run_suite(suite, **kwargs)
        return self.result


def put_in_place(root):
    """Have what tests import, and what settings name, be ours from here on."""
    from suites.backends import Finished, Waiting

    importlib.import_module(f"{root}.backends.immediate").ImmediateBackend = Finished
    importlib.import_module(f"{root}.backends.dummy").DummyBackend = Waiting


def main(outcomes, *labels):
    from suites import wsgi  # noqa: F401  # with the project's own TASKS: tests lay theirs over them

    from gearwsgi.contrib.django.task_api import ROOT

    put_in_place(ROOT)
    runner = Runner(verbosity=1, interactive=False)
    runner.run_tests(labels)
    with open(outcomes, "w") as file:
        json.dump(runner.result.outcomes, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
