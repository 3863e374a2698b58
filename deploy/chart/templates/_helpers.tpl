{{/* What the names of this release begin with: its own name, without "-controller", so that the release
beamlit-controller has beamlit-controller, beamlit-xds and beamlit-gateway. */}}
{{- define "beamlit.prefix" -}}
{{- $prefix := .Values.namePrefix | default (trimSuffix "-controller" .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z][a-z0-9-]*$" $prefix) -}}
{{- fail (printf "namePrefix: is required, since the name of a Service cannot begin with that of the release, %s" .Release.Name) -}}
{{- end -}}
{{- $prefix -}}
{{- end -}}

{{/* The labels that find the pods of a program: (list . "gateway"). */}}
{{- define "beamlit.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: beamlit
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of what belongs to a program: (list . "gateway"). */}}
{{- define "beamlit.labels" -}}
{{- $root := index . 0 -}}
{{ include "beamlit.selector" . }}
app.kubernetes.io/part-of: beamlit
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end -}}

{{/* An image: (list . .Values.image). */}}
{{- define "beamlit.image" -}}
{{- $image := index . 1 -}}
{{- $image.repository }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* The namespaces that are watched, as a list in JSON; empty for all. */}}
{{- define "beamlit.namespaces" -}}
{{- $given := .Values.config.namespaces | default list -}}
{{- $names := list -}}
{{- if kindIs "string" $given -}}
{{- range splitList "," $given }}{{ with trim . }}{{ $names = append $names . }}{{ end }}{{ end -}}
{{- else -}}
{{- $names = $given -}}
{{- end -}}
{{- $allowed := .Values.allowedNamespaces -}}
{{- if and $allowed (not $names) -}}
{{- fail "config.namespaces: is empty, which means all namespaces, but allowedNamespaces has only some: set allowedNamespaces=null, or name the namespaces" -}}
{{- end -}}
{{- range $names -}}
{{- if and $allowed (not (has . $allowed)) -}}
{{- fail (printf "config.namespaces: %s is not among allowedNamespaces (%s): the programs would have no rights there" . (join ", " $allowed)) -}}
{{- end -}}
{{- end -}}
{{- $names | toJson -}}
{{- end -}}

{{/* Where credentials are mounted, and the Secret they come from. */}}
{{- define "beamlit.credentialsFolder" -}}/etc/beamlit/credentials{{- end -}}
{{- define "beamlit.credentialsSecret" -}}
{{- .Values.credentials.existingSecret | default (printf "%s-credentials" (include "beamlit.prefix" .)) -}}
{{- end -}}

{{/* The client secret as it was given; `--set` makes a number of one that has digits alone. */}}
{{- define "beamlit.clientSecret" -}}
{{- $backend := .Values.config.defaultRemoteBackend | default dict -}}
{{- $oauth := (($backend.authConfig | default dict).oauthConfig | default dict) -}}
{{- with $oauth.clientSecret }}{{ toString . }}{{ end -}}
{{- end -}}

{{/* The default remote backend, in YAML and without its secret; nothing if none is in force. */}}
{{- define "beamlit.defaultRemoteBackend" -}}
{{- $backend := deepCopy (.Values.config.defaultRemoteBackend | default dict) -}}
{{- $at := "config.defaultRemoteBackend" -}}
{{- if $backend.host -}}
{{- $auth := $backend.authConfig | default dict -}}
{{- $oauth := $auth.oauthConfig | default dict -}}
{{- if and (eq ($auth.type | default "") "oauth") (not $oauth.clientSecretRef) -}}
  {{- $at = printf "%s.authConfig.oauthConfig" $at -}}
  {{- $secret := or $oauth.clientSecret .Values.credentials.existingSecret -}}
  {{- if and $oauth.clientSecret .Values.credentials.existingSecret -}}
    {{- fail (printf "%s.clientSecret: must be left out where credentials.existingSecret names the Secret that has it" $at) -}}
  {{- else if and $oauth.clientId (not $secret) -}}
    {{- fail (printf "%s.clientSecret: is required where clientId is given (or credentials.existingSecret)" $at) -}}
  {{- else if and $secret (not $oauth.clientId) -}}
    {{- fail (printf "%s.clientId: is required where a client secret is given" $at) -}}
  {{- else if $secret -}}
    {{- $_ := set $oauth "clientId" (toString $oauth.clientId) -}}
    {{- $_ := set $oauth "clientSecretFile" (printf "%s/clientSecret" (include "beamlit.credentialsFolder" .)) -}}
    {{- $_ := unset $oauth "clientSecret" -}}
    {{- toYaml $backend -}}
  {{- else if ne $backend.host "run.beamlit.com" -}}
    {{- fail (printf "%s.clientId: is required; a backend that asks for no credential has authConfig: null" $at) -}}
  {{- end -}}
{{- else -}}
  {{- $_ := unset $oauth "clientSecret" -}}
  {{- toYaml $backend -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether the client secret is in force, and is mounted. */}}
{{- define "beamlit.hasClientSecret" -}}
{{- if contains "clientSecretFile" (include "beamlit.defaultRemoteBackend" .) }}true{{ end -}}
{{- end -}}

{{/* The configuration file of the programs. No secret is in it. */}}
{{- define "beamlit.config" -}}
{{- $config := omit .Values.config "defaultRemoteBackend" -}}
{{- $_ := set $config "namespaces" (include "beamlit.namespaces" . | fromJsonArray) -}}
{{- with include "beamlit.defaultRemoteBackend" . -}}
{{- $_ := set $config "defaultRemoteBackend" (fromYaml .) -}}
{{- end -}}
{{- range tuple "metricsAddr" "probeAddr" -}}
{{- if hasKey $config . }}{{ $_ := set $config . (get $config . | toString) }}{{ end -}}
{{- end -}}
{{- if and .Values.installBeamlitGateway (not $config.proxyService) -}}
{{- $name := printf "%s-gateway" (include "beamlit.prefix" .) -}}
{{- $_ := set $config "proxyService" (dict "namespace" .Release.Namespace "name" $name) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The port of an address of the configuration: (list .Values.config.probeAddr ":8081"); nothing where it is off. */}}
{{- define "beamlit.port" -}}
{{- $address := index . 0 -}}
{{- if kindIs "invalid" $address }}{{ $address = index . 1 }}{{ end -}}
{{- regexFind "[0-9]+$" (toString $address) | trimPrefix "0" -}}
{{- end -}}

{{/* What all containers have: no privilege, no root, and nothing to write to but /tmp. */}}
{{- define "beamlit.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "beamlit.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Where pods go: (list . "gateway" .Values.gateway). */}}
{{- define "beamlit.placement" -}}
{{- $values := index . 2 -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
{{- with $values.affinity }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "beamlit.selector" (list (index . 0) (index . 1)) | nindent 14 }}
{{- end }}
{{- end -}}

{{/* The certificate of a program as a volume: (list . "gateway"). Its pod waits until each of the files is there. */}}
{{- define "beamlit.tlsVolume" -}}
- name: tls
  secret:
    secretName: {{ include "beamlit.prefix" (index . 0) }}-{{ index . 1 }}-tls
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
{{ include "beamlit.tmpVolume" . }}
{{- end -}}

{{/* The same with a token for the xDS servers in place of a certificate: (list . "gateway"). The kubelet renews it. */}}
{{- define "beamlit.tokenVolume" -}}
- name: tls
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "beamlit.prefix" (index . 0) }}-{{ index . 1 }}-tls
          items:
            - {key: ca.crt, path: ca.crt}
      - serviceAccountToken:
          audience: {{ (index . 0).Values.xdsServer.tokens.audience }}
          expirationSeconds: 3600
          path: token
{{ include "beamlit.tmpVolume" . }}
{{- end -}}

{{- define "beamlit.tmpVolume" -}}
- name: tmp
  emptyDir:
    medium: Memory
    sizeLimit: 16Mi
{{- end -}}

{{/* How a client of the xDS servers proves who it is. */}}
{{- define "beamlit.xdsClientArgs" -}}
- --xds-ca=/etc/beamlit/tls/ca.crt
- --xds-cert=/etc/beamlit/tls/tls.crt
- --xds-key=/etc/beamlit/tls/tls.key
{{- end -}}
