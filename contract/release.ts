/** The release of this package, as every part reports it. `package.json` says the same (a test compares). */
export const release = "0.1.0";
