"""What the clients of a model see of each thing that can fail, with each split: one table, read by tests and benchmark.

* `cases` is the table: what fails, what is promised, and what that means in words.
* `troubles` makes it fail while requests come, `site` has everything that can; `names` is a name server that can.
* `play` is one case with some of its splits at once: the load, the trouble in its midst, and what came of it.
  `clients` are the load.
* `promise` judges that. Pure.
* `plays` has each case of a test module played once, `lacking` what must break a promise.
"""
