/** How often what happened. */
export class Tally {
  readonly counts = new Map<string, number>();

  add(name: string, count = 1): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + count);
  }

  addAll(other: Tally): void {
    for (const [name, count] of other.counts) this.add(name, count);
  }

  toString(): string {
    const sorted = [...this.counts].sort(([a], [b]) => (a < b ? -1 : 1));
    return sorted.map(([name, count]) => `  ${count.toLocaleString('en').padStart(10)}  ${name}`).join('\n');
  }
}
