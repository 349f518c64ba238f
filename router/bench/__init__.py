"""`router bench`: backends measured against each other, so that a difference is told from noise or not told at all.

`plan` what is measured in which order, `measured` what one measurement says, `stats` and `verdict` what follows,
`fit` what the router learns of it, `text` and `page` how it is shown: all pure. `client` and `runner` do the asking.
"""
