"""Studies: longer looks at the numbers that the product's defaults stand on."""
