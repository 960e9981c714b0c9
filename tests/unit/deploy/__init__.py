"""What deploy/ holds, as far as it can be judged without a pod: tests/pod runs it."""
