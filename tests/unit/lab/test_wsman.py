# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test WS-Man envelopes and faults without a socket."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from lab import wsman

ENVELOPE = """<?xml version="1.0" encoding="utf-8"?>{doctype}
<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"
 xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"
 xmlns:rsp="http://schemas.microsoft.com/wbem/wsman/1/windows/shell">
 <s:Header><a:Action>http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Receive</a:Action>
 <a:MessageID>uuid:M</a:MessageID><w:ResourceURI>urn:x</w:ResourceURI>{header}
 <w:SelectorSet><w:Selector Name="ShellId">abc</w:Selector></w:SelectorSet>
 <w:OptionSet><w:Option Name="O">v</w:Option></w:OptionSet></s:Header>
 <s:Body>{body}</s:Body></s:Envelope>"""


def envelope(header="", body="<rsp:Receive/>", doctype=""):
    return ENVELOPE.format(header=header, body=body, doctype=doctype).encode()


def test_a_request():
    request = wsman.parse(
        envelope("<w:OperationTimeout>PT20S</w:OperationTimeout><w:MaxEnvelopeSize>153600</w:MaxEnvelopeSize>")
    )
    assert request.name == "Receive"
    assert request.resource_uri == "urn:x"
    assert request.message_id == "uuid:M"
    assert request.shell_id == "ABC"
    assert request.options == {"O": "v"}
    assert request.operation_timeout == 20
    assert request.max_envelope_size == 153600
    assert request.element("Receive").tag.endswith("}Receive")


def test_what_a_client_leaves_out_or_overstates():
    request = wsman.parse(
        envelope("<w:OperationTimeout>P9D</w:OperationTimeout><w:MaxEnvelopeSize>99999999</w:MaxEnvelopeSize>")
    )
    assert request.operation_timeout == wsman.MAX_OPERATION_TIMEOUT
    assert request.max_envelope_size == wsman.MAX_ENVELOPE_SIZE
    assert wsman.parse(envelope()).operation_timeout == wsman.MAX_OPERATION_TIMEOUT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT20S", 20),
        ("PT20.5S", 20.5),
        ("PT1M", 60),
        ("P1DT2H3M4S", 93784),
        ("PT0S", 0),
        ("P", -1),
        ("", -1),
        ("20", -1),
    ],
)
def test_durations(text, seconds):
    assert wsman.duration(text, -1) == seconds


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not xml",
        b"<a/>",
        b"\xff\xfe<\x00",
        envelope()[:-10],
        envelope(doctype='<!DOCTYPE s [<!ENTITY e "x">]>'),
        envelope().replace(b"<a:MessageID>uuid:M</a:MessageID>", b""),
    ],
)
def test_data_that_is_not_a_request(data):
    with pytest.raises(wsman.BadRequest):
        wsman.parse(data)


def test_an_envelope_above_the_limit_is_a_fault():
    with pytest.raises(wsman.Fault) as caught:
        wsman.parse(b" " * (wsman.MAX_ENVELOPE_SIZE + 1))
    assert caught.value.subcode == "w:EncodingLimit"


def test_a_body_without_the_element_of_its_action_is_a_fault():
    with pytest.raises(wsman.Fault, match="lacks the element Receive"):
        wsman.parse(envelope(body="")).element("Receive")


def test_a_fault_reads_as_clients_read_it():
    root = ET.fromstring(wsman.fault_response("uuid:<M>", wsman.operation_timeout(), 'a"b'))
    fault = root.find("{*}Body/{*}Fault/{*}Detail/{*}WSManFault")
    assert fault.attrib == {"Code": "2150858793", "Machine": 'a"b'}
    assert root.findtext("{*}Header/{*}RelatesTo") == "uuid:<M>"


def test_a_response_relates_to_its_request():
    request = wsman.parse(envelope())
    root = ET.fromstring(wsman.response(request, "<rsp:ReceiveResponse/>"))
    assert root.findtext("{*}Header/{*}RelatesTo") == "uuid:M"
    assert root.findtext("{*}Header/{*}Action").endswith("/shell/ReceiveResponse")
    assert root.find("{*}Body/{*}ReceiveResponse") is not None
