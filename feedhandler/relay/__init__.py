"""The relay: records that subscribers missed, and subscribers of other hosts, beside the tick path."""
