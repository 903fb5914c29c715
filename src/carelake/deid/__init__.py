"""From identified to de-identified: rules over structured data."""
