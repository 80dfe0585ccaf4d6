# One image for broker, coordinator and agents (docker-compose.yml). The project's tests do not build it.
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends mosquitto \
    && rm -rf /var/lib/apt/lists/*

# Keys are readable by their owner alone, so the user in the container is the one who owns them outside. Volumes take
# over owner and mode of /state.
ARG USER_ID=1000
RUN useradd --uid "$USER_ID" --no-create-home hushfleet \
    && install --directory --owner=hushfleet --mode=0700 /state

COPY . /usr/src/hushfleet
RUN pip install --no-cache-dir '/usr/src/hushfleet[coordinator]'

USER hushfleet
ENTRYPOINT ["hushfleet"]
