"""What of the lake a permit shows, inside SQL: rows, columns, cells, and the one door to relations."""
