import type { DescMethod, DescService } from "@bufbuild/protobuf";
import type {
  BidiCall,
  BidiHandler,
  ServerStreamCall,
  ServerStreamHandler,
  UnaryCall,
  UnaryHandler,
} from "./client.ts";
import type { Service } from "./service.ts";
import type { CallOptions, Client, HandlerContext } from "./types.ts";

/** A service that hands every call on to where it is served, in its caller's name. */
export function forward<S extends DescService>(desc: S, client: Client<S>): Service {
  const calls = client as Readonly<Record<string, unknown>>;
  return {
    desc,
    handlers: Object.fromEntries(desc.methods.map((method) => [method.localName, forwardMethod(method, calls)])),
  };
}

function forwardMethod(method: DescMethod, calls: Readonly<Record<string, unknown>>): unknown {
  const call = calls[method.localName];
  switch (method.methodKind) {
    case "unary": {
      const handler: UnaryHandler = (request, context) => (call as UnaryCall)(request, optionsOf(context));
      return handler;
    }
    case "server_streaming": {
      const handler: ServerStreamHandler = (request, context) =>
        (call as ServerStreamCall)(request, optionsOf(context));
      return handler;
    }
    case "bidi_streaming": {
      const handler: BidiHandler = (requests, context) => (call as BidiCall)(requests, optionsOf(context));
      return handler;
    }
    case "client_streaming":
      throw new Error(`${method.parent.typeName}/${method.name}: client streaming is not supported`);
  }
}

function optionsOf({ signal, deadlineMs, traceParent, caller }: HandlerContext): CallOptions {
  return { signal, traceParent, caller, ...(deadlineMs === undefined ? {} : { deadlineMs }) };
}
