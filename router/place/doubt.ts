/** That the table seems to be old, told to whoever can ask for a newer one; in a worker that is another thread. */
export class Doubt {
  #listener: () => void = () => {};

  readonly tell = (): void => this.#listener();

  follow(listener: () => void): void {
    this.#listener = listener;
  }
}
