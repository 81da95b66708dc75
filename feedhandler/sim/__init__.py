"""The exchanges, simulated: Binance, KuCoin and Bybit spot market data on loopback, with faults on command.

For the demo, the tests and the benchmarks; nothing else may import it, and it imports nothing of the
feed handler: what it has of a protocol is its own reading of the exchange's documentation.

    server.py      the shell: sockets, clock, tasks, HTTP
    binance.py     ┐
    kucoin.py      ├ one exchange each: frames, REST answers, rules, how a breach is answered
    bybit.py       ┘ and with _private in their names: the account, signed requests, its stream
    simulated.py   the table of them
    broadcast.py   who subscribes to which stream, and what goes into whose outbox
    rhythm.py      when the market moves: each symbol by itself, few often and most seldom
    rate.py        or all that is subscribed to, at a known rate
    playback.py    or a recording, in the place of a market: its frames, at their times
    reading.py     what must be known of an exchange's frames for that
    faults.py      what can be made to go wrong, or to happen to an account
    credentials.py who may read an account, and how that is checked
    account.py     what an account holds
    market.py      the instruments, and their random walk while tickers alone are wanted
    book.py        the order book of one, from when its trades or its depth are wanted
    sources.py     what is sent of a book event by event
    protocol.py    what the exchanges have in common: shapes, no facts
    frames.py      WebSocket frames, server side
"""
