import type { Absence, Binding, Need, Vote } from "./approval.ts";

/**
 * Who may answer. Pure; asked anew at every click, with the groups that the reviewer is in then.
 *
 * 1. Never who asked: not the agent, and not the user it acts for unless policy says `confirm`.
 * 2. Where groups are named, only their members; members of the escalation group too once its time has come.
 * 3. Who is away lends their place to a stand-in, to its date: the stand-in answers as them, and rule 1 holds for both.
 * 4. One person has one answer, and one place is answered for once.
 */

export type Person = { readonly name: string; readonly groups: readonly string[] };

export type Reviewer = Person & {
  /** Whose stand-in they say they are, with the groups these are in now. */
  readonly standsFor: readonly Person[];
};

export type Standing =
  | { readonly kind: "eligible"; readonly as: string; readonly groups: readonly string[] }
  | { readonly kind: "self approval"; readonly reviewer: string; readonly as: "user" | "agent" }
  | { readonly kind: "not eligible"; readonly reviewer: string; readonly groups: readonly string[] };

export type Moment = { readonly absences: ReadonlyMap<string, Absence>; readonly nowMs: number };

export function standingOf(
  binding: Binding,
  reviewer: Reviewer,
  { absences, nowMs }: Moment,
  votes: readonly Vote[],
): Standing {
  const own = requesterAs(binding, reviewer.name);
  if (own !== undefined) return { kind: "self approval", reviewer: reviewer.name, as: own };
  const lenders = reviewer.standsFor.filter(({ name }) => {
    const absence = absences.get(name);
    return absence?.standIn === reviewer.name && absence.untilMs > nowMs;
  });
  const taken = new Set(votes.map((vote) => placeOf(vote).toLowerCase()));
  const places = [{ name: reviewer.name, groups: reviewer.groups }, ...lenders].filter(
    ({ name }) => requesterAs(binding, name) === undefined,
  );
  const able = places.flatMap((place) => {
    const groups = groupsFilled(binding.need, place.groups, nowMs);
    return groups === undefined ? [] : [{ ...place, groups }];
  });
  const chosen = able.find(({ name }) => !taken.has(name.toLowerCase())) ?? able[0];
  if (chosen === undefined) return { kind: "not eligible", reviewer: reviewer.name, groups: binding.need.groups };
  return { kind: "eligible", as: chosen.name === reviewer.name ? "" : chosen.name, groups: chosen.groups };
}

/** Whose place an answer is. */
export function placeOf({ reviewer, as }: Pick<Vote, "reviewer" | "as">): string {
  return as === "" ? reviewer : as;
}

/** The answer that this person has given, or that was given in their place, to these arguments. */
export function earlierVote(
  votes: readonly Vote[],
  argumentsHash: string,
  who: { readonly reviewer: string; readonly as: string },
): Vote | undefined {
  const place = placeOf(who).toLowerCase();
  return votes.find(
    (vote) =>
      vote.argumentsHash === argumentsHash && (vote.reviewer === who.reviewer || placeOf(vote).toLowerCase() === place),
  );
}

/** Whether these yeses are enough: `quorum` people of every group, each counted for one group only. */
export function isEnough({ groups, quorum }: Need, yeses: readonly Vote[]): boolean {
  if (groups.length === 0) return yeses.length >= quorum;
  const seats = groups.flatMap((group) => Array.from({ length: quorum }, () => group));
  if (yeses.length < seats.length) return false;
  /** Which seat each vote sits on. A matching by augmenting paths (Kuhn 1955). */
  const seatOf = new Map<Vote, number>();
  const place = (seat: number, tried: Set<Vote>): boolean => {
    for (const vote of yeses) {
      if (tried.has(vote) || !vote.groups.includes(seats[seat] ?? "")) continue;
      tried.add(vote);
      const occupied = seatOf.get(vote);
      if (occupied === undefined || place(occupied, tried)) {
        seatOf.set(vote, seat);
        return true;
      }
    }
    return false;
  };
  return seats.every((_, seat) => place(seat, new Set()));
}

/** How many yeses it takes in all. */
export function seatsOf({ groups, quorum }: Need): number {
  return Math.max(1, groups.length) * quorum;
}

function requesterAs({ principal, need }: Binding, name: string): "user" | "agent" | undefined {
  // The requester's runtime spells the name: other capitals must not make another person.
  const same = (other: string): boolean => other.toLowerCase() === name.toLowerCase();
  if (same(principal.agent)) return "agent";
  return principal.user !== "" && same(principal.user) && !need.confirm ? "user" : undefined;
}

/** Which of the groups asked a member of these may answer for; undefined: for none. */
function groupsFilled(need: Need, groups: readonly string[], nowMs: number): readonly string[] | undefined {
  if (need.groups.length === 0) return [];
  const escalated = need.escalateGroup !== "" && nowMs >= need.escalateAtMs && groups.includes(need.escalateGroup);
  const filled = escalated ? need.groups : need.groups.filter((group) => groups.includes(group));
  return filled.length === 0 ? undefined : filled;
}
