# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the HTTP of a lab node, byte by byte."""

from __future__ import annotations

import base64
import http.client
import socket

import pytest

from lab import wsman


@pytest.fixture
def authorized(lab):
    token = base64.b64encode(f"administrator:{lab.configuration.password}".encode()).decode()
    return {"Authorization": f"Basic {token}", "Content-Type": "application/soap+xml;charset=UTF-8"}


@pytest.fixture
def connection(lab):
    connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=10)
    yield connection
    connection.close()


def ask(connection, *arguments, **options):
    connection.request(*arguments, **options)
    response = connection.getresponse()
    return response, response.read()


def raw(lab, data):
    """Send bytes on a new connection; return all bytes that arrive until the node closes it."""
    with socket.create_connection(("127.0.0.1", lab.port), timeout=10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_request_without_credentials_gets_a_challenge(start_lab):
    lab = start_lab(auth=("basic", "ntlm"), tls=False)
    connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=10)
    response, body = ask(connection, "POST", "/wsman", "x")
    assert (response.status, body) == (401, b"")
    assert response.headers.get_all("WWW-Authenticate") == ["Negotiate", 'Basic realm="WSMAN"']
    connection.close()


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic",
        "Basic %%%",
        "Basic YTpi",
        "Negotiate YTpi",
        "NTLM TlRMTVNTUAABAAAA",
        "NTLM TlRMTVNTUAADAAAA",
        "Bearer x",
    ],
)
def test_malformed_credentials(start_lab, authorization):
    lab = start_lab(auth=("basic", "ntlm"), tls=False)
    connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=10)
    for _ in range(2):
        assert ask(connection, "POST", "/wsman", "x", {"Authorization": authorization})[0].status == 401
    connection.close()


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"POST /wsman HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /wsman HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /wsman HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n",
        b"POST /wsman HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ],
)
def test_malformed_http(lab, data):
    assert raw(lab, data).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert lab.log()[-1]["status"] == 400


def test_a_header_that_does_not_end(lab):
    assert raw(lab, b"POST /wsman HTTP/1.1\r\n" + b"x: y\r\n" * 20000).startswith(b"HTTP/1.1 431 ")


def test_a_chunked_body(lab):
    assert raw(lab, b"POST /wsman HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").startswith(b"HTTP/1.1 501 ")


@pytest.mark.parametrize("data", [b"", b"POST", b"POST /wsman HTTP/1.1\r\nContent-Length: 9\r\n\r\nxx"])
def test_a_client_that_gives_up(lab, data):
    assert raw(lab, data) == b""


def test_malformed_xml_keeps_the_connection(lab, connection, authorized):
    for body in (b"<a", b"\xff\xfe", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", b"<a/>"):
        assert ask(connection, "POST", "/wsman", body, authorized)[0].status == 400
    assert len({line["connection"] for line in lab.log()[-4:]}) == 1


def test_other_paths_and_methods(connection, authorized):
    assert ask(connection, "POST", "/", b"x", authorized)[0].status == 404
    assert ask(connection, "GET", "/wsman", headers=authorized)[0].status == 405
    assert ask(connection, "POST", "/WSMan/", b"<a/>", authorized)[0].status == 400


@pytest.mark.parametrize("size", [wsman.MAX_ENVELOPE_SIZE + 1, 4 << 20])
def test_an_envelope_that_is_too_large(connection, authorized, size):
    response, body = ask(connection, "POST", "/wsman", b" " * size, authorized)
    assert response.status == 500
    assert b"w:EncodingLimit" in body
    assert ask(connection, "POST", "/wsman", b"<a/>", authorized)[0].status == 400


def test_an_enormous_body_is_not_read(lab):
    answer = raw(lab, b"POST /wsman HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_connection_close(connection, authorized):
    response, _ = ask(connection, "POST", "/wsman", b"<a/>", {**authorized, "Connection": "close"})
    assert response.headers["Connection"] == "close"


def test_an_encrypted_message_without_ntlm(connection, authorized):
    protocol = "application/HTTP-SPNEGO-session-encrypted"
    content_type = f'multipart/encrypted;protocol="{protocol}";boundary="Encrypted Boundary"'
    response, _ = ask(connection, "POST", "/wsman", b"x", {**authorized, "Content-Type": content_type})
    assert response.status == 400
