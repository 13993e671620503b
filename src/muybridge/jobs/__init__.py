"""Jobs that outlive the process that made them: one table, its files, the workers that carry them out."""
