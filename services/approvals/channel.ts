import type { Approval } from "./approval.ts";
import type { Card } from "./card.ts";
import type { Notice } from "./notice.ts";
import type { Entry } from "./people.ts";

/** A way to tell people: Slack, a webhook, later others. What it is told twice does no harm. */
export type Channel = {
  /** Known by it in the journal, so it never changes: `slack:C012AB3CD`, `webhook:ops`. */
  readonly name: string;
  readonly tenant: string;
  /** Low risk is gathered for so long and told together; 0: at once. */
  readonly digestMs: number;
  readonly wants: (approval: Approval, nowMs: number) => boolean;
  /** Tells it anew, or brings what was told up to date. Returns where it is. @throws Busy when it is to be left alone. */
  readonly tell: (message: Message) => Promise<string>;
  readonly remind: (message: Message, times: number) => Promise<void>;
  /** Several of low risk, in one message. */
  readonly digest: (messages: readonly Message[]) => Promise<string>;
  /** Where it can be named in a rule's `notify`. */
  readonly notice?: (notice: Notice) => Promise<void>;
};

export type Message = {
  readonly approval: Approval;
  readonly card: Card;
  /** To the page. */
  readonly link: string;
  /** Where it was told; empty: not yet. */
  readonly address: string;
  /** Who may answer and is not away. */
  readonly people: readonly Entry[];
};

/** The other side asks to be left alone for a while. */
export class Busy extends Error {
  override readonly name = "Busy";
  readonly retryAfterMs: number;
  constructor(retryAfterMs: number) {
    super(`busy for ${retryAfterMs} ms`);
    this.retryAfterMs = retryAfterMs;
  }
}
