# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WS-Management envelopes: parses requests, builds results and faults.

The specifications are DSP0226 (WS-Management) and MS-WSMV (Microsoft's
extensions: shells, faults). This module does no input or output.
"""

from __future__ import annotations

import re
import uuid
import xml.etree.ElementTree as ET
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

SOAP = "{http://www.w3.org/2003/05/soap-envelope}"
ADDRESSING = "{http://schemas.xmlsoap.org/ws/2004/08/addressing}"
WSMAN = "{http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd}"
SHELL = "{http://schemas.microsoft.com/wbem/wsman/1/windows/shell}"
POWERSHELL = "{http://schemas.microsoft.com/powershell}"

SHELL_URI = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
FAULT_ACTION = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault"

#: Bytes of a request or response at most: MaxEnvelopeSizekb of WinRM since Windows 8 (MS-WSMV 2.2.4.10).
MAX_ENVELOPE_SIZE = 500 * 1024

#: Seconds that an operation takes at most: MaxTimeoutms of WinRM (MS-WSMV 2.2.4.10).
MAX_OPERATION_TIMEOUT = 60.0

_DURATION = re.compile(
    r"P(?:(?P<days>\d{1,9})D)?"
    r"(?:T(?:(?P<hours>\d{1,9})H)?(?:(?P<minutes>\d{1,9})M)?(?:(?P<seconds>\d{1,9}(?:\.\d{1,9})?)S)?)?"
)
_ENVELOPE = (
    '<s:Envelope xml:lang="en-US" xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
    ' xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"'
    ' xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer"'
    ' xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"'
    ' xmlns:rsp="http://schemas.microsoft.com/wbem/wsman/1/windows/shell">'
    "<s:Header><a:Action>{action}</a:Action><a:MessageID>uuid:{message_id}</a:MessageID>"
    "<a:To>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:To>"
    "<a:RelatesTo>{relates_to}</a:RelatesTo></s:Header><s:Body>{body}</s:Body></s:Envelope>"
)
_FAULT = (
    "<s:Fault><s:Code><s:Value>{code}</s:Value><s:Subcode><s:Value>{subcode}</s:Value></s:Subcode></s:Code>"
    '<s:Reason><s:Text xml:lang="en-US">{message}</s:Text></s:Reason><s:Detail>'
    '<f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="{number}" Machine={machine}>'
    "<f:Message>{message}</f:Message></f:WSManFault></s:Detail></s:Fault>"
)


class BadRequest(Exception):
    """The bytes are not a WS-Management request. The HTTP answer is 400."""


class Fault(Exception):
    """A SOAP fault. ``number`` is a code of wsmerror.h in the Windows SDK."""

    def __init__(self, number: int, code: str, subcode: str, message: str) -> None:
        super().__init__(message)
        self.number = number
        self.code = code
        self.subcode = subcode
        self.message = message


def operation_timeout() -> Fault:
    """No output within OperationTimeout. Clients ask again (ERROR_WSMAN_OPERATION_TIMEDOUT)."""
    message = "The WS-Management service cannot complete the operation within the time specified in OperationTimeout."
    return Fault(0x80338029, "s:Receiver", "w:TimedOut", message)


def shell_not_found(shell_id: str) -> Fault:
    """The shell does not exist (ERROR_WSMAN_UNEXPECTED_SELECTORS)."""
    message = (
        f"The request for the Windows Remote Shell with ShellId {shell_id} failed because the shell was not found on "
        "the server. Possible causes are: the specified ShellId is incorrect or the shell no longer exists on the "
        "server."
    )
    return Fault(0x8033805B, "s:Sender", "w:InvalidSelectors", message)


def command_not_found(command_id: str) -> Fault:
    """The shell has no such command (ERROR_WSMAN_UNEXPECTED_SELECTORS)."""
    message = f"The command {command_id} was not found in the shell. It may have ended or been terminated."
    return Fault(0x8033805B, "s:Sender", "w:InvalidSelectors", message)


def unsupported(what: str) -> Fault:
    """A feature of WinRM that a lab node does not have (ERROR_WSMAN_UNSUPPORTED_FEATURE)."""
    return Fault(0x80338042, "s:Sender", "w:UnsupportedFeature", f"lab node: {what} is not supported.")


def broken_pipe() -> Fault:
    """Input for an ended command (ERROR_BROKEN_PIPE)."""
    return Fault(109, "s:Receiver", "w:InternalError", "The pipe has been ended.")


def code_page_not_supported(code_page: str) -> Fault:
    """A WinRS shell in an unknown code page (ERROR_WINRS_CODE_PAGE_NOT_SUPPORTED)."""
    return Fault(0x80338140, "s:Sender", "w:InvalidOptions", f"lab node: the code page {code_page} is not supported.")


def invalid_body(what: str) -> Fault:
    """The body does not fit the action (ERROR_WSMAN_INVALID_SOAP_BODY)."""
    return Fault(0x80338027, "s:Sender", "w:SchemaValidationError", f"lab node: {what}.")


def internal_error() -> Fault:
    """A bug of the lab (ERROR_INTERNAL_ERROR)."""
    return Fault(1359, "s:Receiver", "w:InternalError", "lab node: internal error, see lab.log.")


def envelope_too_large(size: int) -> Fault:
    """The request is larger than MAX_ENVELOPE_SIZE (ERROR_WSMAN_MAX_ENVELOPE_SIZE)."""
    message = (
        f"The WinRM client sent a request of {size} bytes to the remote WS-Management service; the configured "
        f"MaxEnvelopeSize quota is {MAX_ENVELOPE_SIZE} bytes."
    )
    return Fault(0x80338047, "s:Sender", "w:EncodingLimit", message)


class Request(NamedTuple):
    """One request. Times are in seconds, sizes in bytes. Ids that are GUIDs are in upper case."""

    action: str
    resource_uri: str
    message_id: str
    operation_timeout: float
    max_envelope_size: int
    shell_id: str
    options: dict[str, str]
    body: ET.Element

    @property
    def name(self) -> str:
        """The last part of the URI of the action: Create, Command, Send, Receive, Signal or Delete."""
        return self.action.rsplit("/", 1)[-1]

    def element(self, tag: str) -> ET.Element:
        """Return an element of the shell namespace from the body. Raises Fault if it is missing."""
        found = self.body.find(SHELL + tag)
        if found is None:
            raise invalid_body(f"a {self.name} request lacks the element {tag}")
        return found


def parse(data: bytes) -> Request:
    """Parse an envelope. Raises BadRequest, or Fault for an envelope that is too large."""
    if len(data) > MAX_ENVELOPE_SIZE:
        raise envelope_too_large(len(data))
    try:
        text = data.decode("utf-8-sig")
        # Clients do not send a document type. Without one there are no entities to expand.
        if "<!DOCTYPE" in text:
            raise BadRequest("the envelope has a document type declaration")
        root = ET.fromstring(text)  # noqa: S314 - see above
    except (UnicodeDecodeError, ET.ParseError) as error:
        raise BadRequest(f"the body is not well-formed XML in UTF-8: {error}") from error
    header, body = root.find(f"{SOAP}Header"), root.find(f"{SOAP}Body")
    if root.tag != f"{SOAP}Envelope" or header is None or body is None:
        raise BadRequest("the body is not a SOAP 1.2 envelope with a header and a body")
    action = header.findtext(f"{ADDRESSING}Action", "").strip()
    message_id = header.findtext(f"{ADDRESSING}MessageID", "").strip()
    if not action or not message_id:
        raise BadRequest("the header lacks Action or MessageID")
    selectors = _named(header, f"{WSMAN}Selector")
    size = header.findtext(f"{WSMAN}MaxEnvelopeSize", "").strip()
    timeout = duration(header.findtext(f"{WSMAN}OperationTimeout", ""), MAX_OPERATION_TIMEOUT)
    return Request(
        action=action,
        resource_uri=header.findtext(f"{WSMAN}ResourceURI", "").strip(),
        message_id=message_id,
        operation_timeout=min(timeout, MAX_OPERATION_TIMEOUT),
        max_envelope_size=min(int(size), MAX_ENVELOPE_SIZE) if re.fullmatch("[0-9]{4,9}", size) else MAX_ENVELOPE_SIZE,
        shell_id=selectors.get("ShellId", "").upper(),
        options=_named(header, f"{WSMAN}Option"),
        body=body,
    )


def duration(text: str, default: float) -> float:
    """Return the seconds of an XML Schema duration such as ``PT20S``; ``default`` for other text."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        return default
    seconds = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
    return sum(float(match.group(unit) or 0) * factor for unit, factor in seconds.items())


def response(request: Request, body: str) -> bytes:
    """Return the envelope of an answer. ``body`` is XML."""
    return _envelope(f"{request.action}Response", request.message_id, body)


def fault_response(message_id: str, fault: Fault, machine: str) -> bytes:
    """Return the envelope of a fault. ``message_id`` belongs to the request; "" if it is unknown."""
    body = _FAULT.format(
        code=fault.code,
        subcode=fault.subcode,
        number=fault.number,
        message=escape(fault.message),
        machine=quoteattr(machine),
    )
    return _envelope(FAULT_ACTION, message_id, body)


def _envelope(action: str, relates_to: str, body: str) -> bytes:
    return _ENVELOPE.format(
        action=escape(action), message_id=str(uuid.uuid4()).upper(), relates_to=escape(relates_to), body=body
    ).encode()


def _named(header: ET.Element, tag: str) -> dict[str, str]:
    return {element.get("Name", ""): element.text or "" for element in header.iter(tag)}
