"""The store in an SQLite database.

From the loop down to the disk:
`store` puts each method of the protocol into one function; `database` runs that function, whole, as one transaction in
the thread that `thread` holds, and begins anew what is damaged or gone; `place` is the folder, its files and its lock;
`schema` says what the tables are; `entries`, `journal` and `leases` are the functions, synchronous and without a word
of threads; `poll` hears of what other processes do.
"""
