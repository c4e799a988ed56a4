"""Does a map mean anything? What removing pixels shows, stability, agreement, and verdicts."""
