"""Whether remote backends answer, as this server itself sees it: it alone reads the Secrets that a check needs.

::

    Delivery -> Backend -> Probe -> Outcome -> judged -> RemoteReport
                what is    one      what it    with      what is told,
                checked    check    found      traffic   when it changes

* `backend`, `outcome`, `judgement`, `schedule` are pure; `resolver`, `connection`, `exchange`, `tokens` and
  `probe` do one check; `checks` decides who is checked when.
* One check for each distinct backend, as there is one cluster `backend/<hash>` for it, however many models use it.
* Nothing secret, and nothing that a server says but its status and the error codes of RFC 6749, is in an outcome, an
  exception or a log.
"""
