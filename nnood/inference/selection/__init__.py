"""From trained members to one inference plan, judged on held-out cases with anomalies that no judge has seen."""
