#!/usr/bin/env bash
# A simulation without any library, in no language that simtune knows: with_curl.sh URL MODEL
url=$1 model=$2
roads=(north east south west)

post() { # PATH JSON EPISODE
    curl --silent --fail --max-time 60 --header "content-type: application/json" \
        --header "x-simtune-episode: $3" --data "$2" "$url/$1"
}

play() { # EPISODE
    local right=0 road chat answer reward success=false
    for _ in 1 2; do
        road=${roads[RANDOM % 4]}
        chat='[{"role": "user", "content": "A car waits in the '$road'. Green for?"}]'
        answer=$(post chat/completions '{"model": "'"$model"'", "messages": '"$chat"',
            "choices": ["north", "east", "south", "west"]}' "$1") || return
        [[ $answer =~ \"content\":\"([a-z]+)\" ]] || return
        reward=0
        [[ ${BASH_REMATCH[1]} == "$road" ]] && reward=1
        right=$((right + reward))
        post "simtune/episodes/$1/reward" '{"reward": '$reward'}' "$1" || return
    done
    ((right == 2)) && success=true
    post "simtune/episodes/$1/finish" \
        '{"terminated": true, "outcome": {"success": '$success'}}' "$1"
}

for ((n = 0; ; n++)); do
    play "curl-$$-$n-$RANDOM$RANDOM" >/dev/null || { # no server, or one that refuses
        echo "episode left" >&2
        sleep 0.5
    }
    sleep 0.02
done
