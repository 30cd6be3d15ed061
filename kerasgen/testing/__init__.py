"""Testing: conformance suites that the authors of plugins inherit."""
