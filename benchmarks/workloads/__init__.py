"""What the subjects are given to do; each module makes the table, or tables, of one question."""
