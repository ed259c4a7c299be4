import engine from "@casbin/expression-eval";

/** Casbin's own expression language: the parser and evaluator that its enforcer runs matchers with. */

export type Expression =
  | { readonly type: "Literal"; readonly value: string | number | boolean | null; readonly raw: string }
  | { readonly type: "Identifier"; readonly name: string }
  | {
      readonly type: "MemberExpression";
      readonly computed: boolean;
      readonly object: Expression;
      readonly property: Expression;
    }
  | { readonly type: "CallExpression"; readonly callee: Expression; readonly arguments: readonly Expression[] }
  | { readonly type: "UnaryExpression"; readonly operator: string; readonly argument: Expression }
  | {
      readonly type: "BinaryExpression" | "LogicalExpression";
      readonly operator: string;
      readonly left: Expression;
      readonly right: Expression;
    }
  | { readonly type: "ConditionalExpression" | "ArrayExpression" | "ThisExpression" | "Compound" };

type EngineExpression = Parameters<typeof engine.eval>[0];

/** @throws Error saying what could not be read. */
export function parseExpression(text: string): Expression {
  return engine.parse(text) as unknown as Expression;
}

export function evaluateExpression(expression: Expression, context: object): unknown {
  return engine.eval(expression as unknown as EngineExpression, context);
}

export function literal(value: string | number | boolean | null): Expression {
  return { type: "Literal", value, raw: JSON.stringify(value) };
}

export function call(name: string, ...args: readonly Expression[]): Expression {
  return { type: "CallExpression", callee: { type: "Identifier", name }, arguments: args };
}
