# Debian packages in pieces, and the same packages as apt installs them, on one parent. What apt fetches of the forged
# ones stays out of the cache that builds share.

FROM scratch AS parent
ADD pyrlab-debian.tar /
RUN --mount=type=bind,target=/context bash /context/debian.sh

FROM parent AS plain
ARG PACKAGES
RUN --mount=type=bind,target=/context --mount=type=bind,from=tools,target=/pyrlab/tools/pyrlab \
    --mount=type=cache,id=pyrlab-apt-lists,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=secret,id=ca,mode=0444 --mount=type=secret,id=network \
    python3 -B /context/debian_step.py plain none ${PACKAGES}

FROM parent AS first
ARG PACKAGES
RUN --mount=type=bind,target=/context --mount=type=bind,from=tools,target=/pyrlab/tools/pyrlab \
    --mount=type=cache,id=pyrlab-apt-lists,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=secret,id=ca,mode=0444 --mount=type=secret,id=network \
    python3 -B /context/debian_step.py /pyrlab/out /pyrlab/cache ${PACKAGES}

# Once more, with the cache that the first has filled.
FROM parent AS second
ARG PACKAGES
RUN --mount=type=bind,target=/context --mount=type=bind,from=tools,target=/pyrlab/tools/pyrlab \
    --mount=type=bind,from=first,source=/pyrlab/cache,target=/pyrlab/known \
    --mount=type=cache,id=pyrlab-apt-lists,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=secret,id=ca,mode=0444 --mount=type=secret,id=network \
    cp -r /pyrlab/known /pyrlab/cache && \
    python3 -B /context/debian_step.py /pyrlab/out /pyrlab/cache ${PACKAGES}

FROM scratch AS layers
COPY --from=first /pyrlab/out /

# What is where in the end: as apt installs it, and where it completes the pieces that a cache has none or all of.
FROM plain AS in-plain
RUN --mount=type=bind,target=/pyrlab/context python3 -B /pyrlab/context/debian_look.py >/pyrlab/plain.json

FROM first AS in-first
RUN --mount=type=bind,target=/pyrlab/context python3 -B /pyrlab/context/debian_look.py >/pyrlab/first.json

FROM second AS in-second
RUN --mount=type=bind,target=/pyrlab/context python3 -B /pyrlab/context/debian_look.py >/pyrlab/second.json

FROM scratch AS all
COPY --from=first /pyrlab/out /first
COPY --from=second /pyrlab/out /second
COPY --from=in-plain /pyrlab/plain.json /
COPY --from=in-first /pyrlab/first.json /
COPY --from=in-second /pyrlab/second.json /
