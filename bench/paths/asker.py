"""One who asks the relay for all last values, the next time as soon as it has the answer to the last.

relay ══ROUTER══ REQ this

python -m bench.paths.asker ENDPOINT
"""

import sys

import zmq


def main(endpoint: str) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as req:
        req.connect(endpoint)
        while True:
            req.send(b'{"topics": [""]}')
            req.recv_multipart()


if __name__ == "__main__":
    main(sys.argv[1])
