"""What several files of tests share: small runs, logs, environments, and how they are checked."""
