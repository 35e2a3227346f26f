/** `cellctl completion SHELL`: a small script that asks `cellctl __complete` at every TAB. */
import { usage } from "../failures.ts";
import type { Register } from "../grammar.ts";

const scripts = {
  bash: `# cellctl completion for bash.  Use: source <(cellctl completion bash)
_cellctl() {
  local IFS=$'\\n'
  local words=("\${COMP_WORDS[@]:1:COMP_CWORD}")
  COMPREPLY=($(cellctl __complete "\${words[@]}" 2>/dev/null))
  if [ "\${#COMPREPLY[@]}" -eq 1 ] && [ "\${COMPREPLY[0]}" = ":file" ]; then
    COMPREPLY=($(compgen -f -- "\${COMP_WORDS[COMP_CWORD]}"))
  fi
}
complete -o nosort -F _cellctl cellctl
`,
  zsh: `#compdef cellctl
# cellctl completion for zsh.  Use: source <(cellctl completion zsh)
_cellctl() {
  local -a found
  found=("\${(@f)$(cellctl __complete "\${words[@]:1:$((CURRENT-1))}" 2>/dev/null)}")
  if [[ "\${found[1]}" == ":file" ]]; then
    _files
  else
    compadd -- \${found}
  fi
}
compdef _cellctl cellctl
`,
  fish: `# cellctl completion for fish.  Use: cellctl completion fish | source
function __cellctl_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l found (cellctl __complete $words[2..-1] 2>/dev/null)
  if test "$found[1]" = ":file"
    __fish_complete_path (commandline -ct)
  else
    printf '%s\\n' $found
  end
end
complete -c cellctl -f -a '(__cellctl_complete)'
`,
} as const;

const isShell = (raw: string): raw is keyof typeof scripts => Object.hasOwn(scripts, raw);

export const register: Register = (noun, bind) => {
  bind(noun.argument("<shell>", "bash, zsh or fish"), async (session, [shell = ""]) => {
    if (!isShell(shell))
      throw usage(`"${shell}": must be one of ${Object.keys(scripts).join(", ")}`);
    await session.out.text(scripts[shell]);
    return 0;
  });
};
