"""Sets of captioned clips and pictures: their records, readers and writers, and how they become batches."""
