#!/usr/bin/python3
"""The quick start from Python: nothing but grpcio and stubs generated from Interlock's protos.

    examples/python/generate.sh .interlock/python
    INTERLOCK_KEY=... PYTHONPATH=.interlock/python /usr/bin/python3 examples/python/quickstart.py

INTERLOCK_ADDRESS says where Interlock listens (default 127.0.0.1:7443). Exits with 0 when all went as it should.
"""

import json
import os
import queue
import sys
import uuid

import grpc
from google.rpc import error_details_pb2, status_pb2
from interlock.v1 import broker_pb2, broker_pb2_grpc, types_pb2

ADDRESS = os.environ.get("INTERLOCK_ADDRESS", "127.0.0.1:7443")
TIMEOUT_S = 30


class Unexpected(Exception):
    """Interlock answered something else than this program was written for."""


def expect(holds, what):
    if not holds:
        raise Unexpected(what)


def error_info(status):
    """The machine-readable reason inside a google.rpc.Status."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            return info
    raise Unexpected("the status carries no google.rpc.ErrorInfo")


def status_of(error):
    """The google.rpc.Status that a failed RPC carries in its trailing metadata."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    raise Unexpected("the error carries no grpc-status-details-bin: %s" % error)


def list_tools(broker, metadata):
    response = broker.ListTools(broker_pb2.ListToolsRequest(), metadata=metadata, timeout=TIMEOUT_S)
    print("The agent could be allowed to call:")
    for tool in response.tools:
        impact = types_pb2.Impact.Name(tool.facts.impact).replace("IMPACT_", "").lower()
        print("  %-18s %-7s %s" % (tool.facts.name, impact, tool.description))
    expect(any(tool.facts.name == "math.compute" for tool in response.tools), "math.compute is not among the tools")


def compute(broker, metadata, session):
    request = broker_pb2.ExecuteRequest(
        session=session,
        tool="math.compute",
        arguments_json=json.dumps({"program": "return 6 * 7;"}),
        idempotency_key="compute",
    )
    call = broker.Execute(request, metadata=metadata, timeout=TIMEOUT_S).call
    print("\nmath.compute: %s, result %s" % (broker_pb2.CallState.Name(call.state), call.result.result_json))
    expect(call.state == broker_pb2.CALL_STATE_SUCCEEDED, "math.compute did not succeed")
    expect(json.loads(call.result.result_json) == 42, "math.compute did not answer 42")
    again = broker.Execute(request, metadata=metadata, timeout=TIMEOUT_S).call
    expect(again.ref == call.ref, "the same idempotency key started a second call")
    print("  the same idempotency key again: the same call, %s" % again.ref.call_id)


def denied(broker, metadata, session):
    request = broker_pb2.ExecuteRequest(
        session=session, tool="shell.run", arguments_json=json.dumps({"command": "id"})
    )
    try:
        broker.Execute(request, metadata=metadata, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        info = error_info(status_of(error))
        print("\nshell.run: %s, reason %s (domain %s)" % (error.code().name, info.reason, info.domain))
        print("  %s" % error.details())
        for key in sorted(info.metadata):
            print("  %s: %s" % (key, info.metadata[key]))
        expect(error.code() == grpc.StatusCode.PERMISSION_DENIED, "the denial has another status code")
        expect(info.domain == "interlock" and info.reason != "", "the denial has no reason of ours")
        return
    raise Unexpected("shell.run was not denied")


def session_stream(broker, metadata, session):
    """Several calls in flight on one stream; each answer carries the request id it belongs to."""
    outbox = queue.Queue()
    outbox.put(broker_pb2.SessionRequest(open=broker_pb2.OpenSession(session=session)))
    programs = {n: "return %d ** 2;" % n for n in range(1, 6)}
    for request_id, program in programs.items():
        call = broker_pb2.SessionCall(
            request_id=request_id, tool="math.compute", arguments_json=json.dumps({"program": program})
        )
        outbox.put(broker_pb2.SessionRequest(call=call))
    denied_id = 6
    call = broker_pb2.SessionCall(request_id=denied_id, tool="shell.run", arguments_json='{"command": "id"}')
    outbox.put(broker_pb2.SessionRequest(call=call))

    print("\nOne session, %d calls in flight:" % (len(programs) + 1))
    left = set(programs) | {denied_id}
    responses = broker.Session(iter(outbox.get, None), metadata=metadata, timeout=TIMEOUT_S)
    for response in responses:
        kind = response.WhichOneof("kind")
        if kind == "opened":
            print("  opened as agent %s of tenant %s" % (response.opened.principal.agent, response.opened.principal.tenant))
        elif kind == "call":
            result = response.call.result.result_json
            print("  %d: %s, result %s" % (response.request_id, broker_pb2.CallState.Name(response.call.state), result))
            expect(response.request_id in programs, "request %d was not to run" % response.request_id)
            expect(json.loads(result) == response.request_id**2, "a wrong square")
            left.remove(response.request_id)
        elif kind == "error":
            print("  %d: refused, reason %s" % (response.request_id, error_info(response.error).reason))
            expect(response.request_id == denied_id, response.error.message)
            left.remove(response.request_id)
        if not left:
            outbox.put(None)
    expect(not left, "the stream ended before every call was answered")


def main():
    key = os.environ.get("INTERLOCK_KEY")
    if not key:
        sys.exit("quickstart: set INTERLOCK_KEY to the agent's key; `interlock up` wrote it to .interlock/credentials.yaml")
    metadata = (("authorization", "Bearer " + key),)
    session = "python-" + uuid.uuid4().hex[:8]
    try:
        with grpc.insecure_channel(ADDRESS) as channel:
            broker = broker_pb2_grpc.BrokerServiceStub(channel)
            list_tools(broker, metadata)
            compute(broker, metadata, session)
            denied(broker, metadata, session)
            session_stream(broker, metadata, session)
    except Unexpected as error:
        sys.exit("quickstart: unexpected: %s" % error)
    except grpc.RpcError as error:
        sys.exit("quickstart: %s: %s" % (error.code().name, error.details()))
    print("\nAll as it should be.")


if __name__ == "__main__":
    main()
