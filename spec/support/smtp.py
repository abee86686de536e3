"""SMTP, a protocol in which the server speaks first: a server of Debian's aiosmtpd, and Python's own client.

usage: smtp.py server             prints "listening on 127.0.0.1:PORT", then "mail BYTES SHA256" for each
       smtp.py client ADDRESS N   sends N mails over one connection, each larger than the one before, and
                                  says the same of them
"""
import asyncio
import hashlib
import smtplib
import sys

from aiosmtpd.smtp import SMTP


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(mail):
    say("mail %d %s" % (len(mail), hashlib.sha256(mail).hexdigest()))


class Handler:
    async def handle_DATA(self, server, session, envelope):
        note(envelope.content)
        return "250 taken"


async def serve():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Handler(), hostname="spec", data_size_limit=None), "127.0.0.1", 0)
    say("listening on 127.0.0.1:%d" % server.sockets[0].getsockname()[1])
    await server.serve_forever()


def send(address, count):
    host, _, port = address.rpartition(":")
    with smtplib.SMTP(host, int(port), timeout=30) as client:
        assert client.ehlo_resp is None and client.ehlo()[0] == 250
        for number in range(count):
            mail = b"subject: %d\r\n\r\n" % number + b"a line of sixty-two bytes, of which there are many in a mail..\r\n" * 10**number
            note(mail)
            assert client.sendmail("a@example.org", ["b@example.org"], mail) == {}


if sys.argv[1] == "server":
    asyncio.run(serve())
else:
    send(sys.argv[2], int(sys.argv[3]))
