# What an agent's shell needs beyond Debian's: programs installed for this account come first.
case ":$PATH:" in
*:"$HOME/.local/bin":*) ;;
*) PATH="$HOME/.local/bin:$HOME/.npm-global/bin:$PATH" ;;
esac
export PATH
