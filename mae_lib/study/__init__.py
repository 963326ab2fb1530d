"""What a study is: its schema, its cells, and where their files lie. Never imports torch."""
