"""Where stages are run on records: in this process, in processes that are watched, or on a cluster."""
