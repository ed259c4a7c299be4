import type { DescMethod, DescService } from "@bufbuild/protobuf";
import type { Handlers } from "./types.ts";

/** A service as every transport serves it: its descriptor and one function per method. */
export type Service = {
  readonly desc: DescService;
  /** By the method's local name, e.g. `decideBatch`; its shape is that of Handlers. */
  readonly handlers: Readonly<Record<string, unknown>>;
};

/** Ties an implementation to its contract; the one place where the types of the two are known to agree. */
export function service<S extends DescService>(desc: S, handlers: Handlers<S>): Service {
  return { desc, handlers: handlers as Readonly<Record<string, unknown>> };
}

/** `/<package>.<Service>/<Method>` without the first slash, as in HandlerContext.method. */
export function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}
